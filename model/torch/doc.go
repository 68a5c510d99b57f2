// Package torch exchanges weights with PyTorch: it reads and writes the files of
// torch.save, tells from a state_dict's names and shapes which layers it holds,
// and checks that this library computes with them what PyTorch would.
//
// # Files
//
// [Read] takes .pt and .pth files in the zip format (PyTorch 1.6 and later) and
// in the legacy format before it. Such a file is a pickle, a program for a small
// stack machine that may call any Python function; running one from a stranger
// is running the stranger's code. This reader only builds plain values, knows
// about thirty names (OrderedDict, the tensor rebuilders, storages, dtypes) and
// refuses any other by name, so a file can at worst be refused. Its sizes are
// checked against the file's own before memory is taken.
//
// [Write] makes a zip file that torch.load takes with weights_only=True.
//
// # Layers
//
// A state_dict has no graph, only names and shapes. [Describe] finds in them
// nn.LSTM, nn.GRU, nn.RNN (any layers, directions, biases, proj_size) and their
// single-step cells, nn.Linear, nn.Embedding and nn.LayerNorm; [model.Build] makes
// the same layers of package nn and loads them; [model.Network.Check] runs each on
// random input beside [Reference], PyTorch's equations in float64.
package torch
