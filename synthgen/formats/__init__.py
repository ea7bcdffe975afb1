"""Annotation formats: one reader per dataset format."""
