// Package graph reads, runs and writes ONNX graphs of recurrent networks, as
// graphs: what layers they are made of is package onnx's matter.
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
// A [Builder] writes a graph. [Model.Compare] and [Builder.Export] hold what a
// graph computes, here and in ONNX Runtime where that is installed, against
// what it should.
//
// No number in a graph that runs here is subnormal: what is nearer to zero than
// 2^-126, be it an input, a weight, a result, or only passed on by an Identity
// or a Cast, is the zero of its sign, as in ONNX Runtime with the session option
// session.set_denormal_as_zero. So no input makes a graph slow.
//
// Files may come from anywhere. Memory stays within a small multiple of the
// file's size, tensors outside the file are refused, and whatever is unsound is
// a *model.FileError of one line. The codec covers the messages used here and
// needs no generated code (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
package graph
