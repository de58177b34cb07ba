"""The rules of an executor as pure values: what an attempt is, what may be dialled, what an answer says."""
