/** Return the answer of the server. Throws Error with a message for people. */
export async function fetched(address: string): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(address);
  } catch {
    throw new Error("The server does not answer; is it still running?");
  }
  if (!response.ok) throw new Error(`The server has no ${new URL(address).pathname} (${response.status}).`);
  return response;
}
