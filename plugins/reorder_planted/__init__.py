"""Pictures in which only some tiles carry the class, at a place that a setting moves."""
