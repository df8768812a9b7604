// Package api is the v1 management API: models, services and APP authentication below
// /v1/{project_id}, with the field names and types of the platform whose clients it serves.
//
// Handlers translate between the wire and the nouns of spec. They write desired state to the
// store and read observed state from it; they start nothing and wait for nothing. An API is
// built once and serves any number of requests at once.
package api
