// Package keras reads the weights of Keras 3 models: .keras files, which say
// what layers they hold, and .weights.h5 files, whose groups' names and shapes
// tell.
//
// [Read] takes the layers over to PyTorch's names and this library's layout: it
// turns matrices round, since Keras multiplies from the left ([in, gates·H] to
// [gates·H, in]), takes gates from z r h to r z n (GRU; the LSTM's i f c o is i f
// g o), and makes two biases of one: bias_ih is Keras's, bias_hh zero, but of a
// GRU with reset_after, which has both. [Weights.Reference] is Keras's own
// equations on Keras's own arrays in float64, for comparing what came of it;
// [Weights.CheckKeras] asks Keras itself.
//
// Nothing in a file is executed: a Lambda layer or a custom class is left out.
// A file is held to its size: whatever it claims, memory stays within a small
// multiple of it.
package keras
