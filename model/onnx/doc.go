// Package onnx takes the layers of package nn out of ONNX files, and writes them
// into such files.
//
// [Import] finds the embedding, the recurrent stack and the linear head of a
// graph that has no more than these; [Export] writes such a stack, with every
// option of its cells. Of any other network [AddRNN] and [AddLinear] add the
// layers to a graph that a [graph.Builder] writes. All end in a comparison of
// numbers. Package graph reads and runs graphs that are not layers of this
// library.
//
// ONNX orders gates i,o,f,c (LSTM) and z,r,h (GRU) where PyTorch and this
// library have i,f,g,o and r,z,n; the reader and the writer reorder.
package onnx
