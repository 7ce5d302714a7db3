"""The HTTP side: the page, the API, and the budgets and access rules of connections and requests."""
