package cli

import (
	"fmt"
	"strings"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/model/onnx"
	"github.com/carousel-ml/carousel/tensor"
)

// readONNX takes the weights of a graph that is a plain recurrent stack, having
// compared the stack with the graph.
func readONNX(path string, o *exchangeOptions) (*weights, error) {
	if o.key != "" {
		return nil, misusef("--key %s: an ONNX file is not nested, it has no keys", o.key)
	}
	stack, slab, parity, err := onnx.Import(path)
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

// writeONNX writes an embedding, a recurrent stack and a linear layer, the first
// and the last if they are there, as a graph with states in and out.
func writeONNX(path string, w *weights, o *exchangeOptions) error {
	f := w.file
	c, names, err := stackOf(w.arch)
	if err != nil {
		return err
	}
	stack, err := c.New()
	if err != nil {
		return err
	}
	slab := tensor.Pack(tensor.CPU(), stack, 0)
	var own []model.Tensor
	for _, t := range f.Tensors {
		at := strings.LastIndexByte(t.Name, '.')
		if part, ok := names[t.Name[:max(at, 0)]]; ok {
			own = append(own, model.Tensor{Name: part + "." + t.Name[at+1:], Dims: t.Dims, Data: t.Data})
		}
	}
	renamed, err := model.NewFile(f.Path, own, nil)
	if err != nil {
		return err
	}
	if err := renamed.Load(slab); err != nil {
		return err
	}
	parity, err := onnx.Export(path, stack, &onnx.ExportOptions{State: true})
	if err != nil {
		return err
	}
	o.graph = parity.String()
	return nil
}

// stackOf fits the layers into the one shape that is exported, and tells which
// part of it each layer's name became.
func stackOf(arch *model.Architecture) (c onnx.Config, names map[string]string, err error) {
	names = map[string]string{}
	for i := range arch.Layers {
		l := &arch.Layers[i]
		part := ""
		switch {
		case l.Kind.Recurrent() && !l.Cell && l.Proj == 0:
			part = "rnn"
			c.Cell, c.Input, c.Hidden, c.Layers, c.Bidirectional, c.NoBias = string(l.Kind), l.Input, l.Hidden, l.Layers, l.Bidirectional, !l.Bias
		case l.Kind == model.Embedding:
			part = "embedding"
			c.Vocabulary = l.Input
		case l.Kind == model.Linear:
			part = "head"
			c.Output, c.HeadNoBias = l.Output, !l.Bias
		}
		for _, taken := range names {
			if taken == part {
				part = ""
			}
		}
		if part == "" {
			return c, nil, misusef("layer %q: an ONNX file is written of one recurrent stack, an embedding before it and a linear layer after it; these weights hold more; export them as .pt or .safetensors", l.Name+": "+l.String())
		}
		names[l.Name] = part
	}
	if c.Cell == "" {
		return c, nil, misusef("there is no recurrent stack among the layers: %s", fmt.Sprint(arch.Other))
	}
	return c, names, nil
}
