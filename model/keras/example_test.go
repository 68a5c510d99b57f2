package keras_test

import (
	"fmt"
	"log"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/model/keras"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// The layers of a model saved by Keras, and whether they compute as they should.
func ExampleRead() {
	w, err := keras.Read("testdata/classifier.keras", nil)
	if err != nil {
		log.Fatal(err)
	}
	net, err := model.Build(tensor.CPU(), w.Arch, w.File)
	if err != nil {
		log.Fatal(err)
	}
	parity, err := net.Check("classifier.keras", w.Reference(), 1)
	if err != nil {
		log.Fatal(err)
	}
	for i, l := range w.Arch.Layers {
		fmt.Printf("%s: %v, within 1e-6: %v\n", l.Name, &l, parity.Layers[i].Max < 1e-6)
	}
	fmt.Println(net.Module("gru").(*nn.RNN).Hidden(), "units")
	// Output:
	// words: embedding, 11 -> 4, within 1e-6: true
	// reader: LSTM, 4 -> 10, both directions, within 1e-6: true
	// gru: GRU, 10 -> 6, within 1e-6: true
	// norm: layer norm, 6, within 1e-6: true
	// simple_rnn: RNN (tanh), 6 -> 4, within 1e-6: true
	// dense: linear, 4 -> 3, within 1e-6: true
	// 6 units
}
