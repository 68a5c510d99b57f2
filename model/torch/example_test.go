package torch_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/model/torch"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// A custom model whose fields have other names than the Python class's.
func ExampleLoad() {
	net := &struct {
		Words *nn.Embedding
		RNN   *nn.RNN
		Norm  *nn.LayerNorm
		Head  *nn.Linear
	}{
		nn.NewEmbedding(11, 4, nil),
		nn.NewLSTM(4, 3, &nn.RNNOptions{Layers: 2, Bidirectional: true}),
		nn.NewLayerNorm(6),
		nn.NewLinear(6, 5, nil),
	}
	slab := tensor.Pack(tensor.CPU(), net, 1)
	err := torch.Load("testdata/torch2/tagger.pt", slab, &torch.Options{
		Rename: map[string]string{"embed": "words", "lstm": "rnn"},
	})
	if err != nil {
		log.Fatal(err)
	}
	tape := tensor.NewTape(tensor.CPU(), tensor.Infer)
	y, _ := net.RNN.Forward(net.Words.Forward(tape.IDs([]int32{3, 1, 4, 1, 5}, nil, 1, 5)), nil)
	logits := net.Head.Forward(net.Norm.Forward(y)) // [1,5,5]
	fmt.Printf("%.4f\n", logits.Data()[20:])        // PyTorch computes the same
	// Output: [-0.0602 -0.1390 0.2925 0.8016 1.1947]
}

// What layers a file has, and whether they compute as they should.
func ExampleDescribe() {
	f, err := torch.Read("testdata/torch2/tagger.pt", nil)
	if err != nil {
		log.Fatal(err)
	}
	arch, err := torch.Describe(f, nil)
	if err != nil {
		log.Fatal(err)
	}
	net, err := model.Build(tensor.CPU(), arch, f)
	if err != nil {
		log.Fatal(err)
	}
	parity, err := net.Check(f.Path, torch.Reference(f), 1)
	if err != nil {
		log.Fatal(err)
	}
	for i, l := range arch.Layers {
		fmt.Printf("%s: %v, within 1e-6: %v\n", l.Name, &l, parity.Layers[i].Max < 1e-6)
	}
	// Output:
	// embed: embedding, 11 -> 4, within 1e-6: true
	// lstm: LSTM, 4 -> 6, 2 layers, both directions, within 1e-6: true
	// norm: layer norm, 6, within 1e-6: true
	// head: linear, 6 -> 5, within 1e-6: true
}

func ExampleWrite() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "w.pt")
	w := model.Tensor{Name: "head.weight", Dims: []int{1, 2}, Data: []float32{3, 4}}
	if err := torch.Write(path, []model.Tensor{w}); err != nil {
		log.Fatal(err)
	}
	// In Python: torch.load("w.pt", weights_only=True)
	f, err := torch.Read(path, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(f.Tensors[0].Name, f.Tensors[0].Dims, f.Tensors[0].Data)
	// Output: head.weight [1 2] [3 4]
}
