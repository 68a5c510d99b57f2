// Package onnx reads, runs and writes ONNX models of recurrent networks.
//
// [Read] takes a file apart and checks it; [Model.Run] computes it with the
// operations of package tensor. The operators are those that exported
// recurrent classifiers, taggers and forecasters use; one that is not among
// them is an error that names the operator and its node. LSTM, GRU and RNN
// have every option of the standard: directions, initial states,
// sequence_lens, layout, peepholes, clip, activations, coupled gates, and both
// places of the GRU's reset gate. What the engine's cells do not offer runs on
// a plain cell in double precision: slower, never different.
//
// [Import] finds the embedding, the recurrent stack and the linear head of a
// model that has no more than these, as layers of package nn; [Export] writes
// such a stack, with every option of its cells, and [Graph] any other network.
// All end in a comparison of numbers.
//
// No number in a graph that runs here is subnormal: what is nearer to zero than
// 2^-126, be it an input, a weight, a result, or only passed on by an Identity
// or a Cast, is the zero of its sign, as in ONNX Runtime with the session option
// session.set_denormal_as_zero. So no input makes a graph slow.
//
// ONNX orders gates i,o,f,c (LSTM) and z,r,h (GRU) where PyTorch and this
// library have i,f,g,o and r,z,n; the reader and the writer reorder.
//
// Files may come from anywhere. Memory stays within a small multiple of the
// file's size, tensors outside the file are refused, and whatever is unsound is
// a *model.FileError of one line. The codec covers the messages used here and
// needs no generated code (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
package onnx
