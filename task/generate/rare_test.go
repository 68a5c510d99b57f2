package generate

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/text"
)

// A character that training never met costs about what the characters that came
// once say, and neither it nor the unknown token is generated.
func TestUnknownIsLearnt(t *testing.T) {
	var b strings.Builder
	for i := range 400 { // of 9,600 characters 80 come once
		fmt.Fprintf(&b, "the dog sees the cat, ")
		if i%5 == 0 {
			b.WriteRune(rune(0x4e00 + i))
		} else {
			b.WriteRune('.')
		}
		b.WriteByte('\n')
	}
	cfg := Defaults()
	cfg.Hidden, cfg.Embedding, cfg.Epochs, cfg.Batch, cfg.BPTT, cfg.Split = 24, 16, 8, 4, 32, "1,0,0"
	d, err := NewData([]data.Document{{Text: b.String()}}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	m, _, err := Train(t.Context(), d, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	scored := strings.Repeat("the dog sees the cat, \u9000\n", 20)
	held, err := NewData([]data.Document{{Text: scored}}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	e, err := m.Evaluate(t.Context(), held, task.Training, nil)
	if err != nil {
		t.Fatal(err)
	}
	if e.Unknown != 20 || e.Known == nil {
		t.Fatalf("%d unknown, score without them %v", e.Unknown, e.Known)
	}
	// One line in five ends in a character that came once, which is met there as
	// often as the estimate says; without it one costs more than 12 nats.
	n := float64(e.Tokens)
	cost := (e.Metrics.Nats*n - e.Known.Nats*(n-20)) / 20
	if want := -math.Log(80.0 / 9600); cost > want+1 {
		t.Errorf("an unknown character costs %.2f nats; by the characters seen once %.2f at most", cost, want)
	}
	if chars := float64(e.Characters); math.Abs(e.Known.BitsPerChar*(chars-20)*math.Ln2-e.Known.Nats*(n-20)) > 1e-6 {
		t.Errorf("without the unknown: %+v", *e.Known)
	}
	o := DefaultPredict()
	o.MaxTokens, o.Temperature = 2000, 2
	texts, err := m.Generate(t.Context(), []string{"the", "a"}, &o)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range texts {
		if strings.Contains(g.Text, text.Unknown) || strings.ContainsRune(g.Text, 0xfffd) {
			t.Errorf("generated %q", g.Text)
		}
	}
}

// In each epoch other tokens are read as unseen ones, and only tokens seen once;
// where the text has the unknown token itself, none are.
func TestRareTokens(t *testing.T) {
	k, err := trainCodec(t.Context(), &Config{Tokens: "char", MinCount: 1}, []data.Document{{Text: "aaabbcdefgh"}})
	if err != nil {
		t.Fatal(err)
	}
	v := k.tokens.Vocabulary()
	c, err := newCorpus(t.Context(), k, []data.Document{{Text: "aaabbcdefgh"}}, false, "")
	if err != nil {
		t.Fatal(err)
	}
	counts := c.Counts
	r := newRare(k, counts)
	if r == nil || len(r.once) != 6 || len(r.unseen) != 1 || r.unseen[0] != v.UnknownID() || r.share != 0.75 {
		t.Fatalf("%+v", r) // six seen once, one twice: 6/(6+2)
	}
	read := 0
	for epoch := range 1000 {
		for id, as := range r.draw(nil, 1, epoch) {
			if int32(id) != as {
				read++
				if counts[id] != 1 || as != v.UnknownID() {
					t.Fatalf("%q is read as %q", v.Token(int32(id)), v.Token(as))
				}
			}
		}
	}
	if math.Abs(float64(read)/1000-4.5) > 0.2 {
		t.Errorf("%d tokens are read as unknown in 1000 epochs, want about 4500", read)
	}
	sum, want := 0.0, 0.0
	for i, n := range r.expected(counts) {
		sum, want = sum+n, want+float64(counts[i])
	}
	if math.Abs(sum-want) > 1e-9 {
		t.Errorf("%g tokens are expected, of %g", sum, want)
	}
	counts[v.UnknownID()] = 2
	if newRare(k, counts) != nil {
		t.Error("the text shows what is unknown")
	}
}
