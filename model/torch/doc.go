// Package torch exchanges weights with PyTorch: it reads and writes the files
// of torch.save, infers from a state_dict's names and shapes which layers it
// holds, and checks that this library computes the same results as PyTorch.
//
// # Files
//
// [Read] accepts .pt and .pth files in the zip format (PyTorch 1.6 and later)
// and in the earlier legacy format. Such a file is a pickle, a program for a
// small stack machine that may call any Python function; unpickling a file in
// Python runs its author's code. This reader builds only plain values, knows
// some sixty names (OrderedDict, the tensor rebuilders, storages, dtypes, those of
// NumPy's arrays) and refuses any other by name. The classes of a TorchScript
// program are read as their attributes, and .npz archives as dicts of arrays. Sizes in the file are checked against the file's
// size before memory is allocated.
//
// [Write] makes a zip file that torch.load reads with weights_only=True.
//
// # Layers
//
// A state_dict has no graph, only names and shapes. [Describe] recognises
// nn.LSTM, nn.GRU, nn.RNN (any layers, directions, biases, proj_size) and their
// single-step cells, nn.Linear, nn.Embedding and nn.LayerNorm; [model.Build]
// creates the same layers of package nn and loads them; [model.Network.Check]
// runs each on random input and compares it with [Reference], PyTorch's
// equations in float64.
package torch
