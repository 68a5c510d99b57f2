package task

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/report"
)

// Memory is what a model knows of the data that it was made from: a hash of each
// sample of the training, the validation and the test part. By it the samples of a
// file are recognised when the model is evaluated, whatever the file's name, format
// and order, so that only samples count that the model was not made from.
//
// A model embeds a Memory, which [Fit] fills; its Save writes [Memory.Remembered],
// and its OpenDir calls [Memory.Recall]. The data's type embeds [Parts], or has the
// methods Remember and Recognise of its own.
type Memory struct {
	parts map[Part][]uint64 // ascending, a hash for each copy; nil: nothing is known
}

// memoryFile is the file of a Memory in a model directory: memoryMagic, the numbers
// of hashes of the training, the validation and the test part, and then these, each
// 8 bytes, little-endian.
const (
	memoryFile  = "parts.bin"
	memoryMagic = "parts 1\n"
)

var memoryParts = []Part{Training, Validation, Test}

// Remembers reports whether something is known: not of a model that an older version
// saved.
func (m *Memory) Remembers() bool { return m.parts != nil }

// Add adds the hashes of samples of a part.
func (m *Memory) Add(part Part, sums ...uint64) {
	if m.parts == nil {
		m.parts = map[Part][]uint64{}
	}
	m.parts[part] = append(m.parts[part], sums...)
	slices.Sort(m.parts[part])
}

// Sums returns the hashes of a part, ascending. The slice must not be changed.
func (m *Memory) Sums(part Part) []uint64 { return m.parts[part] }

// Has reports whether a part has a sample with this hash.
func (m *Memory) Has(part Part, sum uint64) bool {
	_, ok := slices.BinarySearch(m.parts[part], sum)
	return ok
}

// Divide returns the part of each of the samples of a file, given by their hashes.
// Test has, besides the samples of the test part, all that the model does not know.
// Each copy of a sample counts: of three copies in a file, of which two were for
// training, one is new. Copies that are in several parts are taken for those of the
// test or validation part as far as the file has the samples that this part alone
// has: all of them in a file with the whole part, none in the file of training
// alone. Those of the test part are then the first in the file, and those of training
// the last.
func (m *Memory) Divide(sums []uint64) []Part {
	parts := make([]Part, len(sums))
	in := slices.Clone(sums)
	slices.Sort(in)
	for _, part := range []Part{Test, Validation, Training} {
		share := 1.0
		if part != Training {
			share = m.presence(part, in)
		}
		used := map[uint64]int{}
		for i, sum := range sums {
			if n := m.copies(part, sum); parts[i] == "" && n > 0 {
				if m.elsewhere(part, sum) {
					n = int(math.Round(share * float64(n)))
				}
				if used[sum] < n {
					parts[i] = part
					used[sum]++
				}
			}
		}
	}
	for i := range parts {
		if parts[i] == "" {
			parts[i] = Test
		}
	}
	return parts
}

// copies returns the number of samples of a part with this hash.
func (m *Memory) copies(part Part, sum uint64) int {
	list := m.parts[part]
	at, _ := slices.BinarySearch(list, sum)
	n := 0
	for at+n < len(list) && list[at+n] == sum {
		n++
	}
	return n
}

// elsewhere reports whether another part has a sample with this hash, too.
func (m *Memory) elsewhere(part Part, sum uint64) bool {
	return slices.ContainsFunc(memoryParts, func(other Part) bool { return other != part && m.Has(other, sum) })
}

// presence returns the share of the samples that a part alone has that are in a file
// with these hashes, ascending; 1 if it has none of its own.
func (m *Memory) presence(part Part, in []uint64) float64 {
	own, found := 0, 0
	for i, sum := range m.parts[part] {
		if i > 0 && m.parts[part][i-1] == sum || m.elsewhere(part, sum) {
			continue
		}
		own++
		if _, ok := slices.BinarySearch(in, sum); ok {
			found++
		}
	}
	if own == 0 {
		return 1
	}
	return float64(found) / float64(own)
}

// Remembered returns the files for a model's Save: one, or none if nothing is known.
func (m *Memory) Remembered() []model.Part {
	if !m.Remembers() {
		return nil
	}
	text := []byte(memoryMagic)
	for _, part := range memoryParts {
		text = binary.LittleEndian.AppendUint64(text, uint64(len(m.parts[part])))
	}
	for _, part := range memoryParts {
		for _, sum := range m.parts[part] {
			text = binary.LittleEndian.AppendUint64(text, sum)
		}
	}
	return []model.Part{{Name: memoryFile, Write: func(w io.Writer) error {
		_, err := w.Write(text)
		return err
	}}}
}

// Recall reads what Remembered wrote, if the directory has it. A file that it cannot
// have written is a *model.FileError.
func (m *Memory) Recall(d *model.Dir) error {
	if !d.Has(memoryFile) {
		return nil
	}
	text, err := d.Read(memoryFile)
	if err != nil {
		return err
	}
	head := len(memoryMagic) + 8*len(memoryParts)
	bad := len(text) < head || !bytes.HasPrefix(text, []byte(memoryMagic))
	parts := map[Part][]uint64{}
	for i, rest := 0, text[min(head, len(text)):]; i < len(memoryParts) && !bad; i++ {
		n := binary.LittleEndian.Uint64(text[len(memoryMagic)+8*i:])
		if bad = n > uint64(len(rest)/8); bad {
			break
		}
		sums := make([]uint64, n)
		for k := range sums {
			sums[k] = binary.LittleEndian.Uint64(rest[8*k:])
		}
		rest = rest[8*n:]
		parts[memoryParts[i]] = sums
		bad = !slices.IsSorted(sums) || i == len(memoryParts)-1 && len(rest) > 0
	}
	if bad {
		return &model.FileError{File: d.File(memoryFile), Problem: "is not a list of samples by part", Fix: "train the model again"}
	}
	m.parts = parts
	return nil
}

// remember fills m with the samples of a training. It is for Fit.
func (m *Memory) remember(d any) {
	if one, ok := d.(interface{ Remember(*Memory) }); ok {
		m.parts = map[Part][]uint64{}
		one.Remember(m)
	}
}

// Recognise divides data that were read to be scored into the parts of the model's
// training. A cancelled ctx returns its error.
func (m *Memory) Recognise(ctx context.Context, d Data) error {
	if one, ok := d.(interface {
		Recognise(context.Context, *Memory) error
	}); ok {
		return one.Recognise(ctx, m)
	}
	return nil
}

// Shared returns how many samples of a part of data are also in a part of other data, by
// their content, or by a method of the data with the name of this function.
func Shared(d Data, part Part, other Data, otherPart Part) (n int) {
	if one, ok := d.(interface{ Shared(Part, Data, Part) int }); ok {
		return one.Shared(part, other, otherPart)
	}
	var mine, its Memory
	mine.remember(d)
	its.remember(other)
	for _, p := range memoryParts {
		for _, sum := range mine.Sums(p) {
			if part != All && p != part {
				continue
			}
			if slices.ContainsFunc(memoryParts, func(o Part) bool { return (otherPart == All || o == otherPart) && its.Has(o, sum) }) {
				n++
			}
		}
	}
	return n
}

// Sum returns the hash of a sample, given as texts: FNV-1a of their words. Amounts and
// kinds of white space do not change it, since they differ between formats of files.
// Package hash/fnv would copy each word.
func Sum(texts ...string) uint64 {
	const offset, prime = 0xcbf29ce484222325, 0x100000001b3
	h := uint64(offset)
	for _, text := range texts {
		for word := range strings.FieldsSeq(text) {
			for i := range len(word) {
				h = (h ^ uint64(word[i])) * prime
			}
			h = (h ^ ' ') * prime
		}
		h *= prime // of a zero byte
	}
	return h
}

// sumOf returns the hash of a sample of any type: of its Content, which leaves out
// its place in the file, or of its value.
func sumOf[T any](one T) uint64 {
	if c, ok := any(one).(interface{ Content() []string }); ok {
		return Sum(c.Content()...)
	}
	return Sum(fmt.Sprint(one))
}

// Scored says which samples an evaluation is of. An Evaluation embeds it, and gets
// it from [Parts.Scored].
type Scored struct {
	Part Part `json:"part,omitempty"` // part that was scored: train, validation, test (all that are new to the model) or all
	Rows int  `json:"rows_scored"`    // number of rows of that part in the data
	// Repeated is the number of rows scored with the same content as one that the
	// model was trained on: copies of a row that are in both parts.
	Repeated int    `json:"rows_repeated,omitempty"`
	LeftOut  int    `json:"rows_left_out"`      // number of other rows in the data
	Why      string `json:"left_out,omitempty"` // the rows left out by part, in words; absent if there are none
}

// NewScored describes the scoring of a part of data with this many samples of each
// part, and of none; a part All is all of them.
func NewScored(part Part, training, validation, test, none int) Scored {
	s := Scored{Part: part}
	var left []string
	for i, n := range []int{training, validation, test, none} {
		switch {
		case part == All || i < len(memoryParts) && part == memoryParts[i]:
			s.Rows += n
		case n > 0:
			s.LeftOut += n
			left = append(left, report.Count(n)+" "+partWords[i])
		}
	}
	s.Why = strings.Join(left, ", ")
	return s
}

var partWords = []string{"that the model was trained on", "by which its weights were chosen", "of the test part", "that its split left to no part"}

// Selection returns in a sentence which rows were scored and which were left out; ""
// if that is unknown.
func (s Scored) Selection() string {
	if s.Part == "" {
		return ""
	}
	text := fmt.Sprintf("scored: %s", report.Plural(s.Rows, "row"))
	switch s.Part {
	case Training:
		text += " of the training part"
	case Validation:
		text += " of the validation part, which also chose the weights"
	case Test:
		text += " that are new to the model"
	case All:
		text += ", also those that the model was trained on"
	}
	if s.Repeated > 0 {
		text += fmt.Sprintf(", %s of them with the same content as rows of training", report.Count(s.Repeated))
	}
	if s.LeftOut > 0 {
		text += "; left out: " + s.Why
	}
	return text
}

func (s Scored) scored() Scored { return s }

// ScoredOf returns which samples an evaluation is of; the zero value if it does not
// say that.
func ScoredOf(e Evaluation) Scored {
	if one, ok := e.(interface{ scored() Scored }); ok {
		return one.scored()
	}
	return Scored{}
}
