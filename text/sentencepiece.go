package text

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/carousel-ml/carousel/model"
	"google.golang.org/protobuf/encoding/protowire"
)

// The types of pieces in a SentencePiece model.
const (
	normalPiece      = 1
	unknownPiece     = 2
	controlPiece     = 3
	userDefinedPiece = 4
	unusedPiece      = 5
	bytePiece        = 6
)

// sentencePiece is the content of a SentencePiece model (ModelProto of
// sentencepiece_model.proto) that encoding and decoding need.
type sentencePiece struct {
	pieces   []spPiece
	kind     uint64 // 1 unigram, 2 BPE, 3 words, 4 characters
	suffix   bool   // the sign for a space ends words rather than beginning them
	fallback bool   // unknown characters are written as bytes
	rules    *charsMap
	dummy    bool // a space is put before the text
	trim     bool // spaces at the ends are removed, and several become one
	escape   bool // spaces are written as a sign

	bytes   bool  // some pieces are single bytes
	defined *trie // user-defined pieces, which are matched whole and kept unchanged
}

type spPiece struct {
	text  string
	score float32
	kind  uint64
}

// parseSentencePiece makes a tokenizer from the content of a SentencePiece
// model.
func parseSentencePiece(file string, content []byte) (*Tokenizer, error) {
	bad := func(err error) error {
		return &model.FileError{File: file, Problem: fmt.Sprintf("not a SentencePiece model: %v", err), Err: err}
	}
	sp := &sentencePiece{kind: 1, rules: &charsMap{}, dummy: true, trim: true, escape: true}
	if err := fields(content, sp.field); err != nil {
		return nil, bad(err)
	}
	t := &Tokenizer{file: SentencePieceFile, content: content}
	if err := sp.build(t); err != nil {
		return nil, bad(err)
	}
	return t, nil
}

// fields calls fn for each field of a message: with its number and its bytes,
// or the value of a number.
func fields(b []byte, fn func(number protowire.Number, value uint64, bytes []byte) error) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		var value uint64
		var bytes []byte
		switch kind {
		case protowire.VarintType:
			value, n = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			var v uint32
			v, n = protowire.ConsumeFixed32(b)
			value = uint64(v)
		case protowire.BytesType:
			bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(number, kind, b)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if err := fn(number, value, bytes); err != nil {
			return err
		}
	}
	return nil
}

func (sp *sentencePiece) field(number protowire.Number, _ uint64, b []byte) error {
	switch number {
	case 1:
		p := spPiece{kind: normalPiece}
		err := fields(b, func(number protowire.Number, value uint64, b []byte) error {
			switch number {
			case 1:
				p.text = string(b)
			case 2:
				p.score = math.Float32frombits(uint32(value))
			case 3:
				p.kind = value
			}
			return nil
		})
		sp.pieces = append(sp.pieces, p)
		return err
	case 2: // trainer_spec
		return fields(b, func(number protowire.Number, value uint64, _ []byte) error {
			switch number {
			case 3:
				sp.kind = value
			case 24:
				sp.suffix = value != 0
			case 35:
				sp.fallback = value != 0
			}
			return nil
		})
	case 3: // normalizer_spec
		return fields(b, func(number protowire.Number, value uint64, b []byte) (err error) {
			switch number {
			case 2:
				sp.rules, err = readCharsMap(b)
			case 3:
				sp.dummy = value != 0
			case 4:
				sp.trim = value != 0
			case 5:
				sp.escape = value != 0
			}
			return err
		})
	}
	return nil
}

// build makes the parts of the tokenizer.
func (sp *sentencePiece) build(t *Tokenizer) error {
	if len(sp.pieces) == 0 {
		return fmt.Errorf("it has no pieces")
	}
	tokens := make([]string, len(sp.pieces))
	vocab := make(map[string]int64, len(sp.pieces))
	special := map[int32]bool{}
	unknown := int32(-1)
	for i, p := range sp.pieces {
		tokens[i] = p.text
		if _, twice := vocab[p.text]; twice || p.text == "" || !utf8.ValidString(p.text) {
			return fmt.Errorf("piece %d, %s, is empty, not UTF-8, or a duplicate", i, quoted(p.text))
		}
		vocab[p.text] = int64(i)
		switch p.kind {
		case unknownPiece:
			unknown = int32(i)
			special[unknown] = true
		case controlPiece:
			special[int32(i)] = true
		case bytePiece:
			sp.bytes = true
		}
	}
	if _, _, err := tokenTable(vocab); err != nil {
		return err
	}
	defined := map[string]int32{}
	for i, p := range sp.pieces {
		if p.kind == userDefinedPiece {
			defined[p.text] = int32(i)
		}
	}
	sp.defined = newTrie(defined)
	var model tokenModel
	switch sp.kind {
	case 1:
		model = sp.unigram(unknown)
	case 2:
		model = newCached(sp.bpe(unknown))
		if sp.withinWords() {
			t.split = []step{splitter(literalPattern(metaspace), withNext, false)}
		}
	case 3: // words begin with the sign, whatever the model says of suffixes
		model = sp.wordLevel(unknown)
		t.split = []step{splitter(literalPattern(metaspace), withNext, false)}
	case 4:
		model = sp.wordLevel(unknown)
		t.split = []step{sp.cutCharacters}
	default:
		return fmt.Errorf("its model is of the kind %d, which is not known", sp.kind)
	}
	t.model = model
	t.normalize = []step{sp.normalize}
	t.decode = []decodeStep{sp.join}
	if sp.bytes {
		t.decode = append(t.decode, joinBytes(func(run []byte) string { return string([]rune(string(run))) }))
	}
	if err := t.finish(tokens, nil); err != nil {
		return err
	}
	t.added.special, t.joinUnknown = special, true
	return nil
}

// usable returns the ids of the pieces that represent text.
func (sp *sentencePiece) usable() map[string]int32 {
	ids := make(map[string]int32, len(sp.pieces))
	for i, p := range sp.pieces {
		if p.kind == normalPiece || p.kind == userDefinedPiece {
			ids[p.text] = int32(i)
		}
	}
	return ids
}

// wordLevel looks up whole pieces.
func (sp *sentencePiece) wordLevel(unknown int32) *wordLevel {
	m := newWordLevel(sp.usable(), unknown)
	m.bytes = sp.byteTable()
	return m
}

// cutCharacters makes a piece of every character and of every user-defined piece.
func (sp *sentencePiece) cutCharacters(f *flow) {
	f.cut(func(p span) {
		for at := p.from; at < p.to; {
			id, end := longest(sp.defined, f.text[:p.to], at)
			if id < 0 {
				_, n := utf8.DecodeRune(f.text[at:p.to])
				end = at + n
			}
			f.add(at, end)
			at = end
		}
	})
}

// byteTable returns the tokens of single bytes, nil if the model has none.
func (sp *sentencePiece) byteTable() *[256]int32 {
	if !sp.fallback {
		return nil
	}
	ids := map[string]int32{}
	for i, p := range sp.pieces {
		if p.kind == bytePiece {
			ids[p.text] = int32(i)
		}
	}
	return byteTokens(ids)
}

func (sp *sentencePiece) unigram(unknown int32) *unigram {
	ids := sp.usable()
	scores := make([]float64, len(sp.pieces))
	least, most := float32(math.Inf(1)), float32(0) // as SentencePiece: the greatest score is never negative
	for i, p := range sp.pieces {
		scores[i] = float64(p.score)
		if p.kind == normalPiece {
			least, most = min(least, p.score), max(most, p.score)
		}
	}
	m := &unigram{
		trie: newTrie(ids), ids: ids, scores: scores, unknown: unknown,
		penalty: float64(least - unknownPenalty), bytes: sp.byteTable(),
		single: true, bonus: map[int32]float64{},
	}
	for i, p := range sp.pieces {
		if p.kind == userDefinedPiece {
			m.bonus[int32(i)] = float64(float32(len(p.text))*most) - 0.1
		}
	}
	return m
}

// bpe ranks merges by the scores of their results. Pairs with the same result
// have the same rank, so that the leftmost is merged first.
func (sp *sentencePiece) bpe(unknown int32) *bpe {
	usable := sp.usable()
	order := make([]int32, 0, len(usable))
	for _, id := range usable {
		order = append(order, id)
	}
	slices.SortFunc(order, func(a, b int32) int {
		switch x, y := sp.pieces[a].score, sp.pieces[b].score; {
		case x > y:
			return -1
		case x < y:
			return 1
		}
		return int(a - b)
	})
	m := newBPE(usable)
	m.unknown, m.bytes, m.units = unknown, sp.byteTable(), sp.defined
	rank := int32(0)
	for k, id := range order {
		if k > 0 && sp.pieces[order[k-1]].score != sp.pieces[id].score {
			rank++
		}
		text := sp.pieces[id].text
		for i := range text {
			a, ok := usable[text[:i]]
			b, ok2 := usable[text[i:]]
			if ok && ok2 && sp.pieces[a].kind != userDefinedPiece && sp.pieces[b].kind != userDefinedPiece {
				m.merges[pairKey(a, b)] = merge{rank, id}
			}
		}
	}
	return m
}

// withinWords reports whether no piece extends across the beginning of a word,
// so that words can be encoded separately.
func (sp *sentencePiece) withinWords() bool {
	return sp.escape && !sp.suffix && !slices.ContainsFunc(sp.pieces, func(p spPiece) bool {
		return strings.LastIndex(p.text, metaspace) > 0
	})
}

// normalize does what SentencePiece's normalizer does: its rules, the spaces,
// and the sign that represents a space.
func (sp *sentencePiece) normalize(f *flow) {
	space := " "
	if sp.escape {
		space = metaspace
	}
	f.rewrite(func(p span) {
		text := f.text[:p.to]
		at, end := p.from, p.to
		if sp.trim { // leading spaces
			for at < end {
				to, n := sp.prefix(text[at:])
				if to != " " {
					break
				}
				at += n
			}
		}
		if at == end {
			return
		}
		begin := len(f.newText)
		if sp.dummy && !sp.suffix {
			f.put(space, at, at)
		}
		afterSpace := sp.trim
		for at < end {
			to, n := sp.prefix(text[at:])
			if sp.trim && afterSpace {
				to = strings.TrimLeft(to, " ")
			}
			if to != "" {
				afterSpace = sp.trim && strings.HasSuffix(to, " ")
				f.put(strings.ReplaceAll(to, " ", space), at, at+n)
			}
			at += n
		}
		if sp.trim {
			for len(f.newText)-begin >= len(space) && string(f.newText[len(f.newText)-len(space):]) == space {
				f.unput(len(space))
			}
		}
		if sp.dummy && sp.suffix {
			f.put(space, end, end)
		}
	})
}

// prefix returns the replacement of the beginning of text, and its length: a
// user-defined piece is kept, a rule is applied, or one character is taken.
func (sp *sentencePiece) prefix(text []byte) (to string, n int) {
	if id, end := longest(sp.defined, text, 0); id >= 0 {
		return string(text[:end]), end
	}
	if to, n := sp.rules.longest(text); n > 0 {
		return to, n
	}
	_, n = utf8.DecodeRune(text)
	return string(text[:n]), n
}

// join turns the signs into spaces, except the one that was prepended, and those
// that were written as bytes.
func (sp *sentencePiece) join(tokens []string) []string {
	if !sp.escape {
		return tokens
	}
	begun := false
	for i, token := range tokens {
		if _, ok := byteOf(token); ok && sp.bytes {
			begun = true
			continue
		}
		if !begun && (sp.dummy || sp.trim) {
			rest, ok := strings.CutPrefix(token, metaspace)
			token, begun = rest, rest != "" || ok && !sp.trim
		}
		tokens[i] = strings.ReplaceAll(token, metaspace, " ")
	}
	return tokens
}
