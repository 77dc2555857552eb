// SPDX-License-Identifier: AGPL-3.0-or-later
// Graphs: nodes that are operations, and their order. Needs the API lock.
//
// A node holds the operation that it becomes when the graph is launched. A launch queues the operations of an executable graph
// in a topological order in the launching stream, so nothing else needs to know about graphs. Child graphs are copied into
// their node and flattened at instantiation.
// SPDX-License-Identifier: AGPL-3.0-or-later
#ifndef SIMGPU_DRIVER_GRAPH_H
#define SIMGPU_DRIVER_GRAPH_H

#include "simgpu/driver/stream.h"

struct CUgraphNode_st {
    struct CUgraphNode_st *next; // in the graph, in order of creation
    struct CUgraph_st *graph;
    CUgraphNodeType type;
    struct op op;                    // OP_NOTHING for empty nodes and child graphs
    struct CUgraph_st *child;        // owned, of a child graph node or a conditional one
    bool never;                      // a conditional node whose condition is 0
    struct CUgraphNode_st *original; // what a clone was made from
    CUgraphNode *deps;
    size_t dep_count;
    uint64_t visited; // mark of the last traversal that was here
};

struct CUgraph_st {
    struct CUgraphNode_st *first, *last;
};

struct exec_node {
    CUgraphNode node; // identity only: the graph may be gone or changed
    CUgraphNodeType type;
    bool disabled;
    struct op op;
};

struct CUgraphExec_st {
    uint64_t flags;
    size_t count;
    struct exec_node *nodes; // in a topological order
};

struct CUgraph_st *graph_new(void);
void graph_free(struct CUgraph_st *graph);

// A copy of a graph with its child graphs. NULL when memory is short.
struct CUgraph_st *graph_clone(const struct CUgraph_st *graph);

// Adds a node. Takes over what the operation refers to, also on failure.
CUresult graph_add(struct CUgraph_st *graph, const struct op *op, const CUgraphNode *deps, size_t dep_count, CUgraphNode *node);
CUresult graph_add_child(struct CUgraph_st *graph, const struct CUgraph_st *child, const CUgraphNode *deps, size_t dep_count,
                         CUgraphNode *node);

// Takes a node and all edges to it out of its graph.
void graph_remove(struct CUgraphNode_st *node);

// True if all of these are nodes of the graph.
bool graph_has_nodes(const struct CUgraph_st *graph, const CUgraphNode *nodes, size_t count);

// True if every one of `from` is one of `to` or comes before one of them.
bool graph_leads_to(const CUgraphNode *from, size_t from_count, const CUgraphNode *to, size_t to_count);

// Adds an edge, unless it is there. CUDA_ERROR_INVALID_VALUE if it would close a cycle.
CUresult graph_add_edge(CUgraphNode from, CUgraphNode to);

// Puts another operation of the same kind into a node. Takes it over.
void node_set_op(struct CUgraphNode_st *node, const struct op *op);

// Turns a call's parameters, whose type depends on the kind of node, into an operation that the caller takes over.
typedef CUresult node_describe(const void *params, struct op *op);
node_describe node_kernel, node_kernel_v1, node_copy, node_fill, node_host, node_event_record, node_event_wait, node_nothing,
    node_memory_ops;
// The describer and the parameters inside a CUgraphNodeParams. CUDA_ERROR_NOT_SUPPORTED for kinds of nodes that do not exist
// here.
CUresult node_params(const CUgraphNodeParams *all, node_describe **describe, const void **params);

// Makes an executable copy; queues one in a stream.
CUresult exec_new(const struct CUgraph_st *graph, uint64_t flags, struct CUgraphExec_st **exec);
void exec_free(struct CUgraphExec_st *exec);
CUresult exec_launch(struct CUgraphExec_st *exec, struct CUstream_st *stream);
// The entry of a node, NULL if the node was not in the graph when it was instantiated.
struct exec_node *exec_find(const struct CUgraphExec_st *exec, CUgraphNode node);

#endif
