package transcribe_test

import (
	"fmt"
	"strings"

	"github.com/carousel-ml/carousel/task/transcribe"
)

func ExampleAlign() {
	pairs, errors := transcribe.Align(strings.Fields("turn the light on"), strings.Fields("turn a light on now"))
	for _, p := range pairs {
		if p.Reference != p.Hypothesis {
			fmt.Printf("%q became %q\n", p.Reference, p.Hypothesis)
		}
	}
	fmt.Printf("word error rate %.2f\n", errors.Rate())
	// Output:
	// "the" became "a"
	// "" became "now"
	// word error rate 0.50
}
