package transcribe

import (
	"context"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/audio"
	"github.com/carousel-ml/carousel/tensor"
)

// sessionState is a session as it is written. Without a rate nothing has come yet.
type sessionState struct {
	Version  int             `json:"version"`
	Sum      uint32          `json:"sum"` // CRC-32 of the object with a sum of 0: damaged numbers might leave a search without hypotheses
	Options  *PredictOptions `json:"options"`
	LM       bool            `json:"lm"`      // of the options: the model's
	Lexicon  bool            `json:"lexicon"` // likewise
	Rate     int             `json:"rate"`
	Samples  int64           `json:"samples"`
	Resample []byte          `json:"resample"`
	Extract  []byte          `json:"extract"`
	Pipeline []byte          `json:"pipeline"`
	State    []byte          `json:"state"` // of the network
	Step     int             `json:"step"`
	Greedy   *greedyState    `json:"greedy,omitempty"`
	Prefixes []prefixState   `json:"prefixes,omitempty"` // each after its parent
	Live     []int           `json:"live,omitempty"`     // those that the search goes on with, best first

	classes int // of the model
}

// greedyState is a greedySearch. Numbers that may be infinite, and whose bits matter, are
// written as their bits.
type greedyState struct {
	Classes []int32  `json:"classes"`
	Steps   []int    `json:"steps"`
	Peaks   []uint64 `json:"peaks"`
	Score   uint64   `json:"score"`
	Last    int      `json:"last"`
}

// prefixState is a prefix of a beam between two steps. The node of the lexicon is that of
// the word.
type prefixState struct {
	Parent int       `json:"parent"` // -1: the empty text
	Class  int32     `json:"class"`
	Step   int       `json:"step"`
	Word   []byte    `json:"word"` // tokens may be parts of characters
	LM     lmState   `json:"lm"`
	Bits   [6]uint64 `json:"bits"` // see numbers
}

// numbers returns where the numbers of a prefix are that last beyond a step.
func (p *prefix) numbers() [6]*float64 {
	return [6]*float64{&p.blank, &p.label, &p.peak, &p.fixed, &p.extra, &p.score}
}

const sessionVersion = 1

// MarshalBinary returns all that the text of further sound depends on: the sound and
// features that wait for what follows, the state of the network, and the search.
func (n *session) MarshalBinary() ([]byte, error) {
	w := &sessionState{Version: sessionVersion}
	if s := n.s; s != nil {
		w.Options, w.Rate, w.Samples = n.o, s.rate, s.samples
		if o, own := n.o, &n.m.decoding; o != nil {
			if o.LMFile != "" || o.LexiconFile != "" || o.LM != nil && o.LM != own.LM || o.Lexicon != nil && o.Lexicon != own.Lexicon {
				return nil, errors.New("a session of sound with a language model or lexicon that is not the model's cannot be saved")
			}
			w.LM, w.Lexicon = o.LM != nil, o.Lexicon != nil
		}
		for _, part := range s.parts(w) {
			var err error
			if *part.bytes, err = part.of.MarshalBinary(); err != nil {
				return nil, err
			}
		}
		s.search.save(w)
	}
	text, err := json.Marshal(w)
	if err != nil {
		return nil, err
	}
	w.Sum = crc32.ChecksumIEEE(text)
	return json.Marshal(w)
}

// part is a part of a stream whose state has a form in bytes.
type part struct {
	of interface {
		encoding.BinaryMarshaler
		encoding.BinaryUnmarshaler
	}
	bytes *[]byte
}

func (s *Stream) parts(w *sessionState) []part {
	return []part{{s.resample, &w.Resample}, {s.extract, &w.Extract}, {s.pipeline, &w.Pipeline}, {s.reader.state, &w.State}}
}

// UnmarshalBinary reads what MarshalBinary wrote.
func (n *session) UnmarshalBinary(text []byte) (err error) {
	defer tensor.Recover(&err)
	broken := errors.New("the state of a session of sound is damaged; begin another session")
	w := &sessionState{}
	if err := json.Unmarshal(text, w); err != nil {
		return fmt.Errorf("the state of a session of sound: %w", err)
	}
	if w.Version != sessionVersion {
		return fmt.Errorf("the state of a session of sound is of version %d, this program reads %d", w.Version, sessionVersion)
	}
	sum := w.Sum
	w.Sum = 0
	if plain, err := json.Marshal(w); err != nil || crc32.ChecksumIEEE(plain) != sum {
		return broken
	}
	if w.Rate == 0 {
		n.s, n.o = nil, nil
		return nil
	}
	if _, err := audio.NewRawReader(strings.NewReader(""), "", w.Rate); err != nil || w.Samples < 0 || w.Step < 0 {
		return broken
	}
	if o := w.Options; o != nil {
		if o.LMFile != "" || o.LexiconFile != "" || w.LM && n.m.decoding.LM == nil || w.Lexicon && n.m.decoding.Lexicon == nil {
			return broken
		}
		if w.LM {
			o.LM = n.m.decoding.LM
		}
		if w.Lexicon {
			o.Lexicon = n.m.decoding.Lexicon
		}
	}
	s, err := n.m.NewStream(context.Background(), w.Rate, w.Options)
	if err != nil {
		return fmt.Errorf("the state of a session of sound is of another model: %w", err)
	}
	for _, part := range s.parts(w) {
		if err := part.of.UnmarshalBinary(*part.bytes); err != nil {
			return fmt.Errorf("the state of a session of sound: %w", err)
		}
	}
	w.classes = n.m.alphabet.classes()
	if s.samples = w.Samples; s.reader.state.Rows() != 1 || !s.search.restore(w) {
		return broken
	}
	n.s, n.o = s, w.Options
	return nil
}

func bitsOf(x []float64) []uint64 {
	bits := make([]uint64, len(x))
	for i, v := range x {
		bits[i] = math.Float64bits(v)
	}
	return bits
}

func (g *greedySearch) save(w *sessionState) {
	w.Step = g.step
	w.Greedy = &greedyState{g.found.classes, g.found.steps, bitsOf(g.found.peaks), math.Float64bits(g.found.score), g.last}
}

func (g *greedySearch) restore(w *sessionState) bool {
	s := w.Greedy
	if s == nil || len(s.Classes) != len(s.Steps) || len(s.Classes) != len(s.Peaks) || slices.ContainsFunc(s.Classes, func(c int32) bool { return c < 1 || int(c) >= w.classes }) ||
		s.Last != 0 && (len(s.Classes) == 0 || s.Last != int(s.Classes[len(s.Classes)-1])) {
		return false
	}
	*g = greedySearch{step: w.Step, last: s.Last}
	g.found = hypothesis{classes: s.Classes, steps: s.Steps, score: math.Float64frombits(s.Score)}
	for _, bits := range s.Peaks {
		g.found.peaks = append(g.found.peaks, math.Float64frombits(bits))
	}
	return true
}

func (b *beam) save(w *sessionState) {
	w.Step = b.step
	at := map[*prefix]int{nil: -1}
	var add func(p *prefix) int
	add = func(p *prefix) int {
		if i, there := at[p]; there {
			return i
		}
		one := prefixState{Parent: add(p.parent), Class: p.class, Step: p.step, Word: []byte(p.word), LM: p.lm}
		for i, v := range p.numbers() {
			one.Bits[i] = math.Float64bits(*v)
		}
		w.Prefixes = append(w.Prefixes, one)
		at[p] = len(w.Prefixes) - 1
		return at[p]
	}
	for _, p := range b.live {
		w.Live = append(w.Live, add(p))
	}
}

func (b *beam) restore(w *sessionState) bool {
	all := make([]*prefix, len(w.Prefixes))
	for i, one := range w.Prefixes {
		p := &prefix{class: one.Class, step: one.Step, word: string(one.Word), lm: one.LM, carried: never, arrived: never, rested: never}
		if one.Parent >= i || one.Parent < -1 || one.Parent >= 0 && (one.Class < 1 || int(one.Class) >= w.classes) {
			return false
		}
		if one.Parent >= 0 {
			p.parent = all[one.Parent]
			p.depth = p.parent.depth + 1
		}
		for k, to := range p.numbers() {
			*to = math.Float64frombits(one.Bits[k])
		}
		if b.d.Lexicon != nil {
			if p.lex = b.d.Lexicon.root.follow(p.word); p.lex == nil {
				return false
			}
		}
		all[i] = p
	}
	b.live, b.step = nil, w.Step
	for _, i := range w.Live {
		if i < 0 || i >= len(all) {
			return false
		}
		b.live = append(b.live, all[i])
	}
	return len(b.live) > 0 && len(b.live) <= b.width
}
