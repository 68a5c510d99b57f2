package graph

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// refusals lists what a file has and is not supported here, so that one message can
// name all of it.
type refusals []refusal

// refusal is an operator, an attribute or a type, with the number of places that have
// it and the first of them: a node, an input or a tensor.
type refusal struct {
	what   string
	places int
	first  string
}

func (l *refusals) add(what, where string) {
	if i := slices.IndexFunc(*l, func(r refusal) bool { return r.what == what }); i >= 0 {
		(*l)[i].places++
		return
	}
	if len(*l) == maxRefusals { // the last entry counts the others
		(*l)[maxRefusals-1].what = "and more"
		(*l)[maxRefusals-1].places++
		return
	}
	*l = append(*l, refusal{what, 1, where})
}

// place names a node in a list of refusals.
func (n *node) place() string {
	if n.name == "" {
		return "the node that makes " + clip(n.makes)
	}
	return "node " + clip(n.name)
}

const maxRefusals = 64

func (l refusals) String() string {
	list := make([]string, len(l))
	for i, r := range l {
		if list[i] = fmt.Sprintf("%s (%s)", r.what, r.first); r.places > 1 {
			list[i] = fmt.Sprintf("%s (%d places, the first is %s)", r.what, r.places, r.first)
		}
	}
	return strings.Join(list, ", ")
}

// attributeSet holds the attributes of an operator that are supported, separated by
// spaces: a name, or a name with its supported values, as in "mode=linear|cubic
// axes". An empty set is one of an operator whose attributes are not checked.
type attributeSet string

// allows reports whether the set has an attribute with its value.
func (s attributeSet) allows(a *attrProto) bool {
	for name := range strings.FieldsSeq(string(s)) {
		name, values, limited := strings.Cut(name, "=")
		if name == a.name {
			return !limited || slices.Contains(strings.Split(values, "|"), a.value())
		}
	}
	return s == ""
}

// value is for comparison with a word, for types with one value.
func (a *attrProto) value() string {
	switch a.typ {
	case attrInt:
		return strconv.FormatInt(a.i, 10)
	case attrString:
		return a.s
	}
	return ""
}

// String returns such as `attribute mode "cubic"`.
func (a *attrProto) String() string {
	switch a.typ {
	case attrInt:
		return fmt.Sprintf("attribute %s=%d", clip(a.name), a.i)
	case attrString:
		return fmt.Sprintf("attribute %s=%s", clip(a.name), strconv.Quote(clip(a.s)))
	}
	return "attribute " + clip(a.name)
}
