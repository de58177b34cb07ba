"""Where large answers are kept: in the database by GridFS, or in an object store."""
