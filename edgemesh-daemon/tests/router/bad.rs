//! Bad input and bad days: each is told in words, and nothing is sent that should not be.
