package cli

import (
	"context"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/model/onnx"
	"github.com/carousel-ml/carousel/model/onnx/graph"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// readONNX takes the weights of a graph that is a plain recurrent stack, having
// compared the stack with the graph.
func readONNX(ctx context.Context, path string, o *exchangeOptions) (*weights, error) {
	if o.key != "" {
		return nil, misusef("--key %s: an ONNX file is not nested, it has no keys", o.key)
	}
	stack, slab, parity, err := onnx.Import(ctx, path)
	if err != nil {
		return nil, err
	}
	o.graph = parity.String()
	c, err := stack.Config()
	if err != nil {
		return nil, err
	}
	f, err := model.NewFile(path, model.SlabTensors(slab), nil)
	if err != nil {
		return nil, err
	}
	kinds := map[string]model.Kind{"rnn": model.Kind(c.Cell)}
	if stack.Embedding != nil {
		kinds["embedding"] = model.Embedding
	}
	if stack.Head != nil {
		kinds["head"] = model.Linear
	}
	return described(f, kinds)
}

// writeONNX writes a graph with states in and out: of an embedding, a recurrent
// stack and a linear layer, the first and the last if they are there, or what
// the weights' own task makes of them.
func writeONNX(ctx context.Context, path string, w *weights, o *exchangeOptions) error {
	write := w.graph
	if write == nil {
		write = func(ctx context.Context, path string) (*graph.Parity, error) {
			stack, err := stackOf(w)
			if err != nil {
				return nil, err
			}
			return onnx.Export(ctx, path, stack, &onnx.ExportOptions{State: true})
		}
	}
	parity, err := write(ctx, path)
	if err != nil {
		return err
	}
	o.graph = parity.String()
	if parity.Doc != "" {
		w.notes = append(w.notes, parity.Doc)
	}
	return nil
}

// stackOf fits the layers into the one shape that is exported.
func stackOf(w *weights) (*onnx.Stack, error) {
	n, err := model.Build(tensor.CPU(), w.arch, w.file)
	if err != nil {
		return nil, err
	}
	stack := &onnx.Stack{}
	for i := range w.arch.Layers {
		l := &w.arch.Layers[i]
		fits := false
		switch m := n.Module(l.Name).(type) {
		case *nn.RNN:
			fits, stack.RNN = stack.RNN == nil, m
		case *nn.Embedding:
			fits, stack.Embedding = stack.Embedding == nil, m
		case *nn.Linear:
			fits, stack.Head = stack.Head == nil, m
		}
		if !fits {
			return nil, misusef("layer %q: an ONNX file is written of one recurrent stack, an embedding before it and a linear layer after it; these weights hold more; export them as .pt or .safetensors", l.Name+": "+l.String())
		}
	}
	switch {
	case stack.RNN == nil:
		return nil, misusef("there is no recurrent stack among the layers that are recognised; not recognised: %s", list(w.arch.Other, 6))
	case len(w.arch.Other) > 0:
		return nil, misusef("an ONNX file would leave out tensors of no layer that is recognised: %s; export the weights as .pt or .safetensors", list(w.arch.Other, 6))
	case stack.Embedding != nil && stack.Embedding.Weight.Dim(1) != stack.RNN.InputSize():
		return nil, misusef("the embedding gives %d features, and the recurrent stack takes %d; export the weights as .pt or .safetensors", stack.Embedding.Weight.Dim(1), stack.RNN.InputSize())
	case stack.Head != nil && stack.Head.Weight.Dim(1) != stack.RNN.OutputSize():
		return nil, misusef("the recurrent stack gives %d features, and the linear layer takes %d; export the weights as .pt or .safetensors", stack.RNN.OutputSize(), stack.Head.Weight.Dim(1))
	}
	return stack, nil
}
