"""Tests of SSM."""
