"""Pictures in memory: conversion and framing."""
