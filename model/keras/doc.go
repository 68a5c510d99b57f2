// Package keras reads the weights of Keras models: .keras files, which
// describe the layers they hold, and .weights.h5 files, whose layers are
// inferred from the names and shapes of groups.
//
// [Read] converts the layers to PyTorch's names and this library's layout: it
// transposes matrices, since Keras multiplies from the left ([in, gates·H]
// becomes [gates·H, in]), reorders gates from z r h to r z n (GRU; the LSTM's i
// f c o is i f g o), and splits one bias into two: bias_ih is Keras's, bias_hh
// is zero, except for a GRU with reset_after, which has both.
// [Weights.Reference] computes Keras's equations on Keras's arrays in float64,
// for comparison with the converted layers; [Weights.CheckKeras] runs Keras
// itself.
//
// Nothing in a file is executed: a Lambda layer or a custom class is left out.
// The file need not be trusted: regardless of its content, memory stays within
// a small multiple of its size.
package keras
