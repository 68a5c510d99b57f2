package graph_test

import (
	"fmt"
	"log"

	"github.com/carousel-ml/carousel/model/onnx/graph"
)

// A model that hears a stream: each call takes the next piece of sound, and the state
// goes from call to call.
func ExampleModel_NewSession() {
	m, err := graph.Read("silero_vad.onnx")
	if err != nil {
		log.Fatal(err)
	}
	s, err := m.NewSession(graph.SessionOptions{}) // finds that state takes stateN
	if err != nil {
		log.Fatal(err)
	}
	sound := make([]float32, 64+512)
	in := map[string]graph.Value{"input": graph.Floats(sound, 1, len(sound)), "sr": graph.Ints([]int64{16000})}
	for more(sound) {
		out, err := s.Step(in)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("speech", out["output"].Data[0])
	}
}

// more moves the last 64 samples to the front and reads the next 512 behind them.
func more([]float32) bool { return false }
