package cli

import (
	"context"
	"io"
	"path/filepath"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/model/network"
	"github.com/carousel-ml/carousel/model/onnx"
	"github.com/carousel-ml/carousel/model/onnx/graph"
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

// writeONNX writes the graph that the weights' own task, or their description, makes
// of them.
func writeONNX(ctx context.Context, path string, w *weights, o *exchangeOptions) error {
	parity, err := w.graph(ctx, path)
	if err != nil {
		return err
	}
	o.graph = parity.String()
	if parity.Doc != "" {
		w.notes = append(w.notes, parity.Doc)
	}
	return nil
}

// stackGraph writes a stack with states in and out.
func stackGraph(d *model.Dir) func(ctx context.Context, path string) (*graph.Parity, error) {
	return func(ctx context.Context, path string) (*graph.Parity, error) {
		stack, _, err := onnx.Open(d.Path)
		if err != nil {
			return nil, err
		}
		return onnx.Export(ctx, path, stack, &onnx.ExportOptions{State: true})
	}
}

// networkGraph writes imported weights as their description connects them.
func networkGraph(d *model.Dir) func(ctx context.Context, path string) (*graph.Parity, error) {
	return func(ctx context.Context, path string) (*graph.Parity, error) {
		n, err := network.Open(d)
		if err != nil {
			return nil, err
		}
		return n.Export(ctx, path)
	}
}

// draftNetwork writes the description of a network beside its weights.
func (a *app) draftNetwork(dir, source string, w *weights) error {
	text, problems := network.Draft(source, w.arch, w.file, w.after)
	path := filepath.Join(dir, network.File)
	for _, problem := range problems {
		a.remark(problem + "; edit " + path + ", or carousel run cannot run it.")
	}
	return model.WriteFileAtomic(path, func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	})
}
