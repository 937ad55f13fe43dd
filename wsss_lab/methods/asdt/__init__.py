"""ASDT: alternative self-dual teaching."""
