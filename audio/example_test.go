package audio_test

import (
	"fmt"
	"math"

	"github.com/carousel-ml/carousel/audio"
)

func ExampleExtract() {
	s := &audio.Sound{Rate: 44100, Samples: make([]float32, 44100)}
	for i := range s.Samples {
		s.Samples[i] = float32(math.Sin(2 * math.Pi * 440 * float64(i) / 44100))
	}
	spec := audio.Spec{Rate: 16000, Window: 400, Hop: 160, Bands: 80} // 25 ms each 10 ms
	frames := audio.Extract(s, spec)
	fmt.Println(len(frames)/spec.Width(), "frames of", spec.Width(), "bands")
	// Output: 100 frames of 80 bands
}
