"""The HTTP edge: one pooled session that dials only what the address guard allows and keeps answers within bounds."""
