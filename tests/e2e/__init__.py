"""Tests against real servers, clients and installations."""
