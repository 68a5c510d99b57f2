package translate_test

import (
	"context"
	"fmt"
	"log"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task/translate"
)

func ExampleBLEU() {
	translations := []string{"The dog runs in the park.", "A cat sleeps."}
	references := [][]string{{"The dog is running in the park."}, {"A cat sleeps.", "A cat is asleep."}}
	bleu, err := translate.BLEU(translations, references, "13a", false)
	if err != nil {
		panic(err)
	}
	chrf, err := translate.CHRF(translations, references, 0, false)
	if err != nil {
		panic(err)
	}
	fmt.Println(bleu)
	fmt.Printf("chrF2 = %.2f\n", chrf)
	// Output:
	// BLEU = 57.89 90.9/77.8/57.1/40.0 (BP = 0.913 ratio = 0.917 hyp_len = 11 ref_len = 12)
	// chrF2 = 67.33
}

func ExampleTrain() {
	cfg := translate.Defaults()
	cfg.Tokens, cfg.MinCount, cfg.Holdout, cfg.Smoothing = "word", 1, 0, 0
	cfg.Hidden, cfg.Embedding, cfg.Dropout, cfg.LR, cfg.Warmup, cfg.Epochs, cfg.EMA = 64, 32, 0, 0.01, 0.03, 150, 0
	d, err := translate.NewData([]data.Pair{
		{Source: "one", Target: "eins"}, {Source: "two", Target: "zwei"},
		{Source: "one two", Target: "eins zwei"}, {Source: "two one", Target: "zwei eins"},
	}, cfg)
	if err != nil {
		log.Fatal(err)
	}
	m, _, err := translate.Train(context.Background(), d, cfg, nil)
	if err != nil {
		log.Fatal(err)
	}
	found, err := m.Translate(context.Background(), []string{"two one", "one"}, nil)
	if err != nil {
		log.Fatal(err)
	}
	for _, t := range found {
		fmt.Println(t.Source, "->", t.Text)
	}
	// Output:
	// two one -> zwei eins
	// one -> eins
}
