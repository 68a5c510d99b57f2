package text

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
)

// Segmenter finds the words of a script that is written without spaces between them
// (Thai, Lao, Khmer or Burmese) by a network of Unicode's lstm_word_segmentation, which
// ICU uses: an embedding of characters or grapheme clusters, an LSTM in both directions,
// and for each character the scores of being the beginning, inside or end of a word, or
// a word alone. A word ends where the end has the highest score, as in ICU4X.
//
// It is immutable, and safe for use by several goroutines at once.
type Segmenter struct {
	name     string
	script   string // its name in Unicode
	table    *unicode.RangeTable
	ids      map[string]int32 // of characters or grapheme clusters; all others have the id after the last
	clusters bool
	net      segmenterNetwork
	content  json.RawMessage // of its file
	tapes    sync.Pool
}

type segmenterNetwork struct {
	Embedding *nn.Embedding
	RNN       *nn.RNN
	Out       *nn.Linear
}

// Scores of a character, in the order of the network.
const (
	wordBegin = iota
	wordInside
	wordEnd
	wordSingle
	wordScores
)

// OpenSegmenter reads weights.json of a model of lstm_word_segmentation. A file that
// cannot be read or does not hold such a model is a [*model.FileError].
func OpenSegmenter(path string) (*Segmenter, error) {
	content, err := readFile(path)
	if err != nil {
		return nil, err
	}
	s, err := parseSegmenter(content)
	if err != nil {
		return nil, &model.FileError{File: path, Problem: err.Error(), Fix: "give the weights.json of a model of lstm_word_segmentation", Err: err}
	}
	return s, nil
}

// OpenSegmenters reads a segmenter for each script from files. Its errors are those of
// [OpenSegmenter], and a [*data.InputError] if two are for one script.
func OpenSegmenters(paths []string) (list []*Segmenter, err error) {
	for _, path := range paths {
		s, err := OpenSegmenter(path)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, checkSegmenters(list)
}

// Name returns the name of the model, such as Thai_codepoints_exclusive_model4_heavy.
func (s *Segmenter) Name() string { return s.name }

// Script returns Unicode's name of the script: Thai, Lao, Khmer or Myanmar.
func (s *Segmenter) Script() string { return s.script }

// segmented are the scripts that a Segmenter may be for.
var segmented = []string{"Thai", "Lao", "Khmer", "Myanmar"}

// mostUnits bounds the sizes of a segmenter's layers.
const mostUnits = 4096

func parseSegmenter(content []byte) (*Segmenter, error) {
	var f struct {
		Model string         `json:"model"`
		Dic   map[string]int `json:"dic"`
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(content, &all); err != nil {
		return nil, fmt.Errorf("is not a segmenter: %w", err)
	}
	if err := json.Unmarshal(content, &f); err != nil {
		return nil, fmt.Errorf("is not a segmenter: %w", err)
	}
	if len(f.Dic) == 0 {
		return nil, fmt.Errorf(`is not a segmenter: it has no characters under "dic"`)
	}
	s := &Segmenter{name: f.Model, ids: map[string]int32{}}
	seen := make([]bool, len(f.Dic))
	for _, unit := range slices.Sorted(maps.Keys(f.Dic)) {
		id := f.Dic[unit]
		if id < 0 || id >= len(seen) || seen[id] {
			return nil, fmt.Errorf("dic: %s has the id %d, want each of 0 to %d once", quoted(unit), id, len(seen)-1)
		}
		seen[id], s.ids[unit] = true, int32(id)
		s.clusters = s.clusters || utf8.RuneCountInString(unit) > 1
		if err := s.belongs(unit); err != nil {
			return nil, err
		}
	}
	if s.script == "" {
		return nil, fmt.Errorf("dic: has no character of %s", strings.Join(segmented, ", "))
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, content); err != nil {
		return nil, err
	}
	s.content = compact.Bytes()
	return s, s.build(all)
}

// belongs sets the script to that of a unit, and returns an error if units have two.
func (s *Segmenter) belongs(unit string) error {
	r, _ := utf8.DecodeRuneInString(unit)
	for _, script := range segmented {
		if !unicode.Is(unicode.Scripts[script], r) {
			continue
		}
		if s.script != "" && s.script != script {
			return fmt.Errorf("dic: has characters of %s and %s, want one script", s.script, script)
		}
		s.script, s.table = script, unicode.Scripts[script]
	}
	return nil
}

// build makes the network of mat1 to mat9: the embedding [units+1, E]; W [E, 4H], R
// [H, 4H] and b [4H] of the LSTM forward, and backward, with the gates i, f, g, o; and the
// scores' W [2H, 4] and b [4]. These are Keras's layouts, the transposes of PyTorch's.
func (s *Segmenter) build(all map[string]json.RawMessage) error {
	var failed error
	matrix := func(n int, dims ...int) (rows, columns int, values []float32) {
		if failed != nil {
			return 1, 1, nil
		}
		name := fmt.Sprintf("mat%d", n)
		var m struct {
			Dim  []int     `json:"dim"`
			Data []float32 `json:"data"`
		}
		if all[name] == nil {
			failed = fmt.Errorf("has no %s", name)
		} else if err := json.Unmarshal(all[name], &m); err != nil {
			failed = fmt.Errorf("%s: %w", name, err)
		}
		size := 1
		fits := len(m.Dim) == len(dims)
		for i, d := range m.Dim {
			fits = fits && d > 0 && d <= mostUnits*4 && (dims[i] == 0 || d == dims[i])
			size *= min(max(d, 0), mostUnits*4)
			if !fits {
				break
			}
		}
		finite := !slices.ContainsFunc(m.Data, func(v float32) bool { return math.IsInf(float64(v), 0) })
		switch {
		case failed != nil:
		case !fits:
			failed = fmt.Errorf("%s has the dimensions %v, want %s", name, m.Dim, strings.ReplaceAll(fmt.Sprint(dims), "0", "n"))
		case len(m.Data) != size:
			failed = fmt.Errorf("%s has %d numbers, want %d of its dimensions %v", name, len(m.Data), size, m.Dim)
		case !finite:
			failed = fmt.Errorf("%s holds a number that is not finite", name)
		default:
			return m.Dim[0], m.Dim[len(m.Dim)-1], m.Data
		}
		return 1, 1, nil
	}
	units, width, embedding := matrix(1, len(s.ids)+1, 0)
	hidden, _, _ := matrix(3, 0, 0)
	if failed != nil {
		return failed
	}
	if hidden > mostUnits {
		return fmt.Errorf("mat3 has the dimension %d, want at most %d", hidden, mostUnits)
	}
	s.net.Embedding = nn.NewEmbedding(units, width, nil)
	s.net.RNN = nn.NewLSTM(width, hidden, &nn.RNNOptions{Bidirectional: true})
	s.net.Out = nn.NewLinear(2*hidden, wordScores, nil)
	values := map[*tensor.Param][]float32{s.net.Embedding.Weight: embedding}
	set := func(p *tensor.Param, n int, dims ...int) {
		rows, columns, v := matrix(n, dims...)
		values[p] = v
		if len(dims) == 2 {
			values[p] = transposed(v, rows, columns)
		}
	}
	for d := range 2 {
		set(s.net.RNN.Param("weight_ih", 0, d), 2+3*d, width, 4*hidden)
		set(s.net.RNN.Param("weight_hh", 0, d), 3+3*d, hidden, 4*hidden)
		set(s.net.RNN.Param("bias_ih", 0, d), 4+3*d, 4*hidden)
		values[s.net.RNN.Param("bias_hh", 0, d)] = make([]float32, 4*hidden)
	}
	set(s.net.Out.Weight, 8, 2*hidden, wordScores)
	set(s.net.Out.Bias, 9, wordScores)
	if failed != nil {
		return failed
	}
	tensor.Pack(nil, &s.net, 0)
	for p, v := range values {
		p.Write(v)
	}
	return nil
}

func transposed(v []float32, rows, columns int) []float32 {
	t := make([]float32, len(v))
	for i, x := range v {
		t[i%columns*rows+i/columns] = x
	}
	return t
}

// takes reports whether r may be in a word of the script: it is a letter or a mark of it.
func (s *Segmenter) takes(r rune) bool {
	return unicode.Is(s.table, r) && (unicode.IsLetter(r) || unicode.IsMark(r))
}

// mostRun is the number of characters or clusters that the network reads at a time. A
// longer run is divided there, so that memory stays bounded.
const mostRun = 1 << 14

// Segment appends to dst the byte offsets at which the words of text end, the last of
// them len(text). The text should be a run of letters and marks of the script: other
// characters are unknown to the network.
func (s *Segmenter) Segment(dst []int, text string) []int {
	var ids []int32
	var ends []int
	for at := 0; at < len(text); {
		n := s.unit(text[at:])
		id, known := s.ids[text[at:at+n]]
		if !known {
			id = int32(len(s.ids))
		}
		at += n
		ids, ends = append(ids, id), append(ends, at)
	}
	tape, ok := s.tapes.Get().(*tensor.Tape)
	if !ok {
		tape = tensor.NewTape(s.net.Out.Weight.Device(), tensor.Infer)
	}
	defer s.tapes.Put(tape)
	for len(ids) > 0 {
		n := min(len(ids), mostRun)
		tape.Reset()
		y, _ := s.net.RNN.Forward(s.net.Embedding.Forward(tape.IDs(ids[:n], nil, 1, n)), nil)
		scores := s.net.Out.Forward(y).Data()
		for i, end := range ends[:n] {
			of := scores[i*wordScores:][:wordScores]
			if e := of[wordEnd]; i == n-1 || e > of[wordBegin] && e > of[wordInside] && e > of[wordSingle] {
				dst = append(dst, end)
			}
		}
		ids, ends = ids[n:], ends[n:]
	}
	return dst
}

// unit returns the length of the character or grapheme cluster that a text begins with.
func (s *Segmenter) unit(text string) int {
	_, n := utf8.DecodeRuneInString(text)
	for s.clusters && n < len(text) {
		r, size := utf8.DecodeRuneInString(text[n:])
		if !extends(r) {
			break
		}
		n += size
	}
	return n
}

// extends reports whether a character of these scripts belongs to the grapheme cluster
// before it (Unicode's annex 29: Extend and SpacingMark).
func extends(r rune) bool {
	switch {
	case r == 0x0e33 || r == 0x0eb3: // the vowel am of Thai and Lao
		return true
	case r == 0x102b || r == 0x102c || r == 0x1038 || 0x1062 <= r && r <= 0x1064 || 0x1067 <= r && r <= 0x106d,
		r == 0x1083 || 0x1087 <= r && r <= 0x108c || r == 0x108f || 0x109a <= r && r <= 0x109c: // vowels and tones of Burmese
		return false
	}
	return unicode.IsMark(r)
}

// checkSegmenters returns a [*data.InputError] if two are for one script.
func checkSegmenters(list []*Segmenter) error {
	for i, s := range list {
		if slices.ContainsFunc(list[:i], func(t *Segmenter) bool { return t.script == s.script }) {
			return data.Errorf("two segmenters are for the script %s, want one for each script", s.script)
		}
	}
	return nil
}

// segmentedSplit is the pre-tokenizer that TrainTokenizer writes for words with
// segmenters. Hugging Face's library has no such type.
func segmentedSplit(list []*Segmenter) json.RawMessage {
	models := make([]json.RawMessage, len(list))
	for i, s := range list {
		models[i] = s.content
	}
	return object("SegmentedWords", "segmenters", models)
}

// isSegmentedSplit recognises segmentedSplit.
func isSegmentedSplit(raw json.RawMessage) bool {
	var s struct {
		Type string `json:"type"`
	}
	return json.Unmarshal(raw, &s) == nil && s.Type == "SegmentedWords"
}

func segmentedWords(raw json.RawMessage) ([]step, error) {
	var s struct {
		Models []json.RawMessage `json:"segmenters"`
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, err
	}
	var list []*Segmenter
	for i, content := range s.Models {
		one, err := parseSegmenter(content)
		if err != nil {
			return nil, fmt.Errorf("segmenter %d: %w", i+1, err)
		}
		list = append(list, one)
	}
	if err := checkSegmenters(list); err != nil {
		return nil, err
	}
	return []step{wordCutter(list)}, nil
}
