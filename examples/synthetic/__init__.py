"""Generated corpora, their drawings and their tokenizer; for the examples, the benchmarks and the tests."""
