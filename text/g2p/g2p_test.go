package g2p_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/golden"
	"github.com/carousel-ml/carousel/internal/npy"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/text/g2p"
)

func open(t testing.TB) *g2p.Model {
	m, err := g2p.Open(golden.Shared(t, "models/g2p_en_checkpoint20.npz"))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// The phonemes of g2p-en for 2,000 words, among them strings of letters and other
// characters.
func TestReference(t *testing.T) {
	m := open(t)
	lines, err := data.NewLineReader("g2p_en.txt", bytes.NewReader(golden.Gzip(t, "testdata/g2p_en.txt.gz")), "")
	if err != nil {
		t.Fatal(err)
	}
	n, other := 0, 0
	for line, err := lines.Next(); err == nil; line, err = lines.Next() {
		word, want, _ := strings.Cut(line, " ")
		list, err := m.Phonemes(word)
		if got := strings.Join(list, " "); err != nil || got != want {
			t.Errorf("%s: %s, want %s (%v)", word, got, want, err)
			other++
		}
		n++
	}
	if n != 2000 {
		t.Errorf("%d words", n)
	}
	t.Logf("%d words, %d differ", n, other)
}

func TestSpelling(t *testing.T) {
	m := open(t)
	plain, err := m.Phonemes("deja")
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"déjà", "DEJA"} {
		if got, err := m.Phonemes(word); err != nil || !slices.Equal(got, plain) {
			t.Errorf("%s: %v, %v, want %v", word, got, err, plain)
		}
	}
	for _, c := range []struct{ word, want string }{
		{"", "a word of 0 characters; want 1 to 1000"},
		{strings.Repeat("a", 1001), "a word of 1001 characters; want 1 to 1000"},
	} {
		_, err := m.Phonemes(c.word)
		var input *data.InputError
		if !errors.As(err, &input) || err.Error() != c.want {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
	if got, err := m.Phonemes(strings.Repeat("ba", 500)); err != nil || len(got) > g2p.MostPhonemes {
		t.Errorf("%d phonemes, %v", len(got), err)
	}
}

func TestOpenRefuses(t *testing.T) {
	const width, hidden = 2, 1
	dims := map[string][]int{
		"enc_emb": {29, width}, "enc_w_ih": {3 * hidden, width}, "enc_w_hh": {3 * hidden, hidden}, "enc_b_ih": {3 * hidden}, "enc_b_hh": {3 * hidden},
		"dec_emb": {74, width}, "dec_w_ih": {3 * hidden, width}, "dec_w_hh": {3 * hidden, hidden}, "dec_b_ih": {3 * hidden}, "dec_b_hh": {3 * hidden},
		"fc_w": {74, hidden}, "fc_b": {74},
	}
	path := filepath.Join(t.TempDir(), "w.npz")
	write := func(change func(arrays map[string]*npy.Array)) {
		arrays := map[string]*npy.Array{}
		for name, d := range dims {
			n, _ := npy.Len(d, 1000)
			arrays[name] = &npy.Array{Type: "f4", Dims: d, Data: make([]byte, 4*n)}
		}
		change(arrays)
		var names []string
		var list []*npy.Array
		for name, a := range arrays {
			names, list = append(names, name), append(list, a)
		}
		f, err := os.Create(path)
		if err == nil {
			err = errors.Join(npy.WriteArchive(f, names, list), f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write(func(map[string]*npy.Array) {})
	if _, err := g2p.Open(path); err != nil {
		t.Errorf("a file of zeros: %v", err)
	}
	for want, change := range map[string]func(a map[string]*npy.Array){
		`holds no array "fc_b"; give the checkpoint20.npz of g2p-en`: func(a map[string]*npy.Array) { delete(a, "fc_b") },
		"array enc_emb is float32[27,2], want floats [29,n]": func(a map[string]*npy.Array) {
			a["enc_emb"] = &npy.Array{Type: "f4", Dims: []int{27, 2}, Data: make([]byte, 4*54)}
		},
		"array dec_w_hh is float32[2,1], want floats [3,1]": func(a map[string]*npy.Array) {
			a["dec_w_hh"] = &npy.Array{Type: "f4", Dims: []int{2, 1}, Data: make([]byte, 8)}
		},
		"array fc_b is int32[74], want floats [74]": func(a map[string]*npy.Array) { a["fc_b"].Type = "i4" },
		"array enc_b_ih holds a number that is not finite": func(a map[string]*npy.Array) {
			binary.LittleEndian.PutUint32(a["enc_b_ih"].Data, math.Float32bits(float32(math.NaN())))
		},
	} {
		write(change)
		_, err := g2p.Open(path)
		var file *model.FileError
		if !errors.As(err, &file) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if err := os.WriteFile(path, []byte("no archive"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := g2p.Open(path); err == nil || !strings.Contains(err.Error(), "is not a .npz archive, or truncated") {
		t.Errorf("got %v", err)
	}
	if _, err := g2p.Open(filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "none: cannot be read: no such file") {
		t.Errorf("got %v", err)
	}
}
