// Package dl calls libraries of C that are loaded at run time, without cgo: it
// opens them, binds their functions, and gives those that want it a thread of
// their own. It is empty without the build tag dl, because a binary that can load
// libraries is linked to the C library.
package dl
