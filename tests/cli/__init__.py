"""Tests of the `meshdns` command."""
