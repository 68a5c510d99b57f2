// Package graph reads, runs and writes ONNX graphs of recurrent networks. Package
// onnx converts them from and to layers.
//
// [Read] parses and checks a file; [Model.Run] runs it with the operations of
// package tensor. The operators are those that exported recurrent networks use, with
// the convolutions, sound features, resampling, loops and quantized products around
// them, 161 in all, some of the domain com.microsoft; one error names all
// operators, attributes and types of a file that are not supported. Floats of every
// width are computed as float32, and a Cast to float16 or bfloat16 rounds to its
// precision. Quantized products are exact. LSTM, GRU and RNN have every option of the
// standard: directions, initial states, sequence_lens, layout, peepholes, clip,
// activations, coupled gates, and both positions of the GRU's reset gate. Options
// that the engine's cells lack run on a plain cell in double precision, which is
// slower with the same results.
//
// The first run with new shapes of the inputs is recorded, and later ones replay it
// in the same memory. A [Session] runs a model step by step, keeps its states and
// allocates nothing.
//
// A [Builder] writes a graph. [Model.Compare] and [Builder.Export] compare the
// results of a graph, here and in ONNX Runtime if it is installed, with the
// expected ones.
//
// No number in a running graph is subnormal: numbers with a magnitude below
// 2^-126, whether inputs, weights, results, or values passed on by an Identity or
// a Cast, are replaced by the zero of their sign, as in ONNX Runtime with the
// session option session.set_denormal_as_zero. So no input makes a graph slow.
//
// Files may be untrusted. Memory stays within a small multiple of the file's
// size, tensors outside the file are refused, and an invalid file is a
// *model.FileError of one line. The decoder covers the messages used here and
// needs no generated code
// (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
package graph
