"""JSON Web Tokens: their verification, and the keys they are verified with."""
