"""Tests of the control plane, room by room."""
