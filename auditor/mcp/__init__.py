"""An audit that another agent plays, over the Model Context Protocol: `auditor mcp`."""
