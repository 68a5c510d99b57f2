package tag_test

import (
	"context"
	"fmt"
	"log"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task/tag"
)

// A tagger of cities, learnt from a few made-up sentences.
func Example() {
	var sentences []data.Sentence
	for _, city := range []string{"Paris", "New York", "Vienna", "Rio de Janeiro"} {
		for _, frame := range []string{"she lives in # now", "# is big", "they went from # to the sea"} {
			before, after, _ := strings.Cut(frame, "#")
			b, c, a := strings.Fields(before), strings.Fields(city), strings.Fields(after)
			tokens := append(append(b, c...), a...)
			tags := tag.IOB2.Tags([]tag.Span{{From: len(b), To: len(b) + len(c), Label: "CITY"}}, len(tokens))
			sentences = append(sentences, data.Sentence{Tokens: tokens, Tags: tags})
		}
	}
	cfg := tag.Defaults()
	cfg.Hidden, cfg.Embedding, cfg.Epochs, cfg.LR, cfg.Holdout, cfg.MinCount = 16, 16, 20, 0.02, 0, 1
	d, err := tag.NewData(sentences, cfg)
	if err != nil {
		log.Fatal(err)
	}
	m, _, err := tag.Train(context.Background(), d, cfg, nil)
	if err != nil {
		log.Fatal(err)
	}
	found, err := m.TagText(context.Background(), []string{"They went from New York to Vienna."}, nil)
	if err != nil {
		log.Fatal(err)
	}
	for _, s := range found[0].Spans {
		fmt.Println(s.Label, s.Text, s.Start, s.End)
	}
	// Output:
	// CITY New York 15 23
	// CITY Vienna 27 33
}
