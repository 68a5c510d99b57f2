// Package inferencepb is the Open Inference Protocol v2 over gRPC, with the extensions
// of Triton: messages, client and server, generated from its .proto files by
// make proto.
package inferencepb
