"""Tests of the agent, room by room."""
