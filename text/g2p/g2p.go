// Package g2p gives the pronunciation of English words that no dictionary has, by the
// network of the Python package g2p-en (Park and Kim): a GRU reads the letters, and a
// second one, which begins with its last state, writes phonemes, the most probable one at
// each step.
//
// The weights are the user's file, which [Open] reads.
package g2p

import (
	"fmt"
	"math"
	"os"
	"strings"
	"sync"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/npy"
	"github.com/carousel-ml/carousel/internal/simd"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// The ids of letters are 3 to 28 for a to z.
const (
	unknownLetter = 1
	endOfLetters  = 2
	firstLetter   = 3
	letters       = 29
)

// phonemes are those of the CMU pronouncing dictionary, vowels with their stress (0 none,
// 1 primary, 2 secondary), by id.
var phonemes = strings.Fields(`<pad> <unk> <s> </s>
	AA0 AA1 AA2 AE0 AE1 AE2 AH0 AH1 AH2 AO0 AO1 AO2 AW0 AW1 AW2 AY0 AY1 AY2 B CH D DH EH0 EH1 EH2 ER0 ER1 ER2 EY0 EY1 EY2
	F G HH IH0 IH1 IH2 IY0 IY1 IY2 JH K L M N NG OW0 OW1 OW2 OY0 OY1 OY2 P R S SH T TH UH0 UH1 UH2 UW UW0 UW1 UW2 V W Y Z ZH`)

const begin, end = 2, 3 // ids of <s> and </s>

// MostPhonemes is the number of phonemes after which a pronunciation ends in any case.
const MostPhonemes = 20

// MostLetters is the largest number of characters of a word.
const MostLetters = 1000

// Model is a network with its weights. It is safe for use by several goroutines at once.
type Model struct {
	net   network
	tapes sync.Pool
}

type network struct {
	Letters  *nn.Embedding
	Encoder  *nn.RNN
	Phonemes *nn.Embedding
	Decoder  *nn.RNN
	Out      *nn.Linear
}

// Open reads the file of a network: .npz, with the arrays enc_emb [29,E] and dec_emb
// [74,E] (embeddings), enc_w_ih [3H,E], enc_w_hh [3H,H], enc_b_ih and enc_b_hh [3H], the
// same for dec, and fc_w [74,H] and fc_b [74], all floats. A file that cannot be
// read or holds something else is a [*model.FileError].
func Open(path string) (*Model, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, model.Unreadable(path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, model.Unreadable(path, err)
	}
	bad := func(err error) error {
		return &model.FileError{File: path, Problem: err.Error(), Fix: "give the checkpoint20.npz of g2p-en", Err: err}
	}
	archive, err := npy.OpenArchive(f, info.Size())
	if err != nil {
		return nil, bad(err)
	}
	r := &reader{archive: archive}
	lettersOf, width := r.read("enc_emb", letters, 0)
	_, hidden := r.read("enc_w_hh", 0, 0)
	if r.err != nil {
		return nil, bad(r.err)
	}
	m := &Model{net: network{nn.NewEmbedding(letters, width, nil), nn.NewGRU(width, hidden, nil),
		nn.NewEmbedding(len(phonemes), width, nil), nn.NewGRU(width, hidden, nil), nn.NewLinear(hidden, len(phonemes), nil)}}
	values := map[*tensor.Param][]float32{m.net.Letters.Weight: lettersOf}
	set := func(p *tensor.Param, name string) { values[p], _ = r.read(name, p.Dims()...) }
	set(m.net.Phonemes.Weight, "dec_emb")
	for prefix, rnn := range map[string]*nn.RNN{"enc": m.net.Encoder, "dec": m.net.Decoder} {
		for i, name := range []string{"w_ih", "w_hh", "b_ih", "b_hh"} {
			set(rnn.Weights[i], prefix+"_"+name)
		}
	}
	set(m.net.Out.Weight, "fc_w")
	set(m.net.Out.Bias, "fc_b")
	if r.err != nil {
		return nil, bad(r.err)
	}
	tensor.Pack(nil, &m.net, 0)
	for p, v := range values {
		p.Write(v)
	}
	return m, nil
}

// reader reads the arrays of an archive.
type reader struct {
	archive *npy.Archive
	err     error // the first
}

// read returns the elements of an array, and its last dimension. Its dimensions are given,
// 0 for one that is not known.
func (r *reader) read(name string, dims ...int) (values []float32, last int) {
	if r.err != nil {
		return nil, 1
	}
	a, err := r.archive.Read(name)
	if r.err = err; err != nil {
		return nil, 1
	}
	fits := len(a.Dims) == len(dims) && (a.Type[0] == 'f')
	for i, d := range a.Dims {
		fits = fits && d > 0 && (dims[i] == 0 || d == dims[i])
	}
	if !fits {
		want := strings.ReplaceAll(npy.Shape(dims), "0", "n")
		r.err = fmt.Errorf("array %s is %s%s, want floats %s", name, npy.Names[a.Type], npy.Shape(a.Dims), want)
		return nil, 1
	}
	values = make([]float32, a.Len())
	for i := range values {
		v := a.Float(i)
		if !(math.Abs(v) <= math.MaxFloat32) {
			r.err = fmt.Errorf("array %s holds a number that is not finite", name)
			return nil, 1
		}
		values[i] = simd.Narrow(v)
	}
	return values, a.Dims[len(a.Dims)-1]
}

// Phonemes returns the pronunciation of a word, at most [MostPhonemes] phonemes of the CMU
// pronouncing dictionary such as "HH", "AH0", "L", "OW1". Case and accents are ignored; a
// character that is no letter of a to z is unknown to the network. A word that is empty or
// longer than [MostLetters] is a [*data.InputError].
func (m *Model) Phonemes(word string) ([]string, error) {
	ids := spell(word)
	if n := len(ids) - 1; n == 0 || n > MostLetters {
		return nil, data.Errorf("a word of %d characters; want 1 to %d", n, MostLetters)
	}
	tape, ok := m.tapes.Get().(*tensor.Tape)
	if !ok {
		tape = tensor.NewTape(m.net.Out.Weight.Device(), tensor.Infer)
	}
	defer m.tapes.Put(tape)
	tape.Reset()
	_, state := m.net.Encoder.Forward(m.net.Letters.Forward(tape.IDs(ids, nil, 1, len(ids))), nil)
	var list []string
	for last := begin; len(list) < MostPhonemes; {
		y, next := m.net.Decoder.Forward(m.net.Phonemes.Forward(tape.IDs([]int32{int32(last)}, nil, 1, 1)), state)
		scores := m.net.Out.Forward(y).Data()
		last, state = 0, next
		for id, v := range scores {
			if v > scores[last] {
				last = id
			}
		}
		if last == end {
			break
		}
		list = append(list, phonemes[last])
	}
	return list, nil
}

// spell returns the ids of a word's letters and of the end.
func spell(word string) (ids []int32) {
	for _, r := range norm.NFD.String(word) {
		switch r = unicode.ToLower(r); {
		case unicode.Is(unicode.Mn, r):
			continue
		case r >= 'a' && r <= 'z':
			ids = append(ids, firstLetter+r-'a')
		default:
			ids = append(ids, unknownLetter)
		}
	}
	return append(ids, endOfLetters)
}
