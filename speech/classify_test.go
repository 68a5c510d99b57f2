package speech

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/audio"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/train"
)

// whistles are labelled: whether the tone rises or falls.
func whistles(t *testing.T, dir string, n int) string {
	r := rand.New(rand.NewPCG(8, 8))
	path := filepath.Join(dir, "labels.csv")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := csv.NewWriter(f)
	w.Write([]string{"audio", "label"})
	for i := range n {
		text, label := []string{"ad", "bc", "ac"}[r.IntN(3)], "rises"
		if i%2 == 1 {
			text, label = string(text[1])+string(text[0]), "falls"
		}
		name := filepath.Join(dir, text+string(rune('a'+i%26))+string(rune('a'+i/26))+".wav")
		writeSound(t, name, whistle(r, text))
		w.Write([]string{filepath.Base(name), label})
	}
	if w.Flush(); w.Error() != nil {
		t.Fatal(w.Error())
	}
	return path
}

func TestClassifier(t *testing.T) {
	dir := t.TempDir()
	cfg := ClassifyDefaults()
	cfg.Hidden, cfg.Layers, cfg.RNNDropout, cfg.Bands, cfg.Epochs, cfg.Batch, cfg.LR, cfg.Holdout = 16, 1, 0, 20, 8, 8, 0.01, 0.2
	path := whistles(t, dir, 80)
	list, err := ReadLabelled(path, &cfg)
	if err != nil {
		t.Fatal(err)
	}
	m, _, err := TrainClassifier(context.Background(), list[:60], cfg, &TrainOptions{Run: train.Run{Dir: filepath.Join(dir, "run")}})
	if err != nil {
		t.Fatal(err)
	}
	e, err := m.Evaluate(context.Background(), list[60:])
	if err != nil {
		t.Fatal(err)
	}
	if e.Metrics.Accuracy < 0.9 || e.Baselines["majority"].Accuracy != 0.5 || e.Confusion[0][0]+e.Confusion[1][1]+len(e.Wrong) != 20 {
		t.Errorf("%+v", e)
	}
	again, err := OpenClassifier(filepath.Join(dir, "run"))
	if err != nil {
		t.Fatal(err)
	}
	all, err := again.PredictFile(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	sound, err := audio.Read(list[3].Audio)
	if err != nil {
		t.Fatal(err)
	}
	// A sound alone has the bits it has among others.
	p, err := m.Classify(t.Context(), sound)
	if err != nil || p[0] != all.Files[3].Probabilities[0] {
		t.Errorf("alone %v, among others %v, %v", p, all.Files[3].Probabilities, err)
	}
	var b bytes.Buffer
	if err := all.WriteCSV(&b); err != nil || !strings.HasPrefix(b.String(), "audio,label,probability,p(falls),p(rises)\n") {
		t.Errorf("%v: %.60q", err, b.String())
	}
	if _, err := Open(filepath.Join(dir, "run")); err == nil || !strings.Contains(err.Error(), "expected a recogniser of speech") {
		t.Errorf("opened as a recogniser: %v", err)
	}
	var input *data.InputError
	if _, _, err := TrainClassifier(context.Background(), list, cfg, &TrainOptions{Test: []Utterance{{Audio: list[0].Audio, Text: "stays"}}}); !errors.As(err, &input) || !strings.Contains(err.Error(), `label "stays" is not among`) {
		t.Errorf("unknown label in the test: %v", err)
	}
	for i := range list {
		list[i].Text = "rises"
	}
	if _, _, err := TrainClassifier(context.Background(), list, cfg, nil); !errors.As(err, &input) || !strings.Contains(err.Error(), "two labels are needed") {
		t.Errorf("one label: %v", err)
	}
}
