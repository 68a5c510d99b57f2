// Package onnx imports layers of package nn from ONNX files, and exports them to
// such files.
//
// [Import] reads a graph that consists of an embedding, a recurrent stack and a
// linear head; [Export] writes such a stack, with every option of its cells. For
// other networks [AddRNN] and [AddLinear] add the layers to a graph that a
// [graph.Builder] writes. Import and Export compare the results of graph and
// layers. Package graph reads and runs graphs that are not layers of this
// library, such as a model of another's: [graph.Read] opens it, [graph.Model.Run]
// runs it, and [graph.Model.NewSession] runs it step by step with its states.
//
// ONNX orders gates i,o,f,c (LSTM) and z,r,h (GRU), PyTorch and this library
// i,f,g,o and r,z,n; the reader and the writer reorder them.
package onnx
