"""Tests of what both sides need of the network."""
