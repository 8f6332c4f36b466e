"""The stages. Each takes values in, borrows its networks, and gives values back; none knows another."""
