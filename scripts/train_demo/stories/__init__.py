"""Deterministic generator of small children's stories and chats about them."""
