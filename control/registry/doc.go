// Package registry owns the life of models: it checks a package, imports it into the package
// store, publishes or fails the model, and deletes it when nobody uses it.
//
// Create checks what can be checked at once and returns; workers of Run import. A model whose
// import was cut off stays "publishing" in the store and is imported again at the next
// start. Deletion marks the model first: whoever creates a service depends on the revision
// of its models, so that a service either is seen by the deletion or fails to be created.
package registry
